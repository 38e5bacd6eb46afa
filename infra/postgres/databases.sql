-- For psql: the databases of MLflow and Prefect, made once. Prefect's migrations want pg_trgm, which only a
-- superuser may make. compose.yaml and `make services` both run this file.
SELECT 'CREATE DATABASE ' || name
FROM (VALUES ('mlflow'), ('prefect')) AS wanted (name)
WHERE name NOT IN (SELECT datname FROM pg_database)
\gexec
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
