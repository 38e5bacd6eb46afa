"""`make services` with the real servers: up together, closed to others, quiet about secrets, and gone."""

import json
import os
import signal
import stat
import urllib.request
from pathlib import Path

import psycopg2
import pytest
from flow_project import inside, wait
from flow_services import passwords, services, variables

from flows import postgres
from flows.project import Mistake


def ask(address: str, body: object | None = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    return json.loads(text) if text[:1] in ("{", "[") else text


@pytest.mark.slow
def test_what_servers_are_told_is_there_after_they_were_killed(served: Path) -> None:
    """Experiments and flows are in PostgreSQL, an artifact in the bucket."""
    known = variables(served)
    mlflow = known["MLFLOW_TRACKING_URI"]
    made = ask(f"{mlflow}/api/2.0/mlflow/experiments/create", {"name": "kept"})
    put = urllib.request.Request(
        f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/some/file.txt", data=b"kept", method="PUT"
    )
    urllib.request.urlopen(put, timeout=30).close()
    flow = ask(f"{known['PREFECT_API_URL']}/flows/", {"name": "kept"})
    assert isinstance(made, dict) and isinstance(flow, dict)
    bucket = served / ".services/s3/buckets/mipriv/mlflow"
    wait(lambda: [path.read_text() for path in bucket.rglob("file.txt")] == ["kept"])

    before = inside(served)
    assert len(before) > 5  # among them processes of PostgreSQL's own
    os.kill(int((served / ".services/pid").read_text()), signal.SIGKILL)
    wait(lambda: not inside(served))
    assert "nothing is served" in services(served, "status", code=1).stdout
    services(served, "start")
    known = variables(served)
    found = ask(f"{known['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=kept")
    assert isinstance(found, dict) and found["experiment"]["experiment_id"] == made["experiment_id"]
    flows = ask(f"{known['PREFECT_API_URL']}/flows/filter", {})
    assert isinstance(flows, list) and flow["id"] in [one["id"] for one in flows]


@pytest.mark.slow
def test_a_server_that_ends_is_started_again_at_its_address(served: Path) -> None:
    health = f"{variables(served)['MLFLOW_TRACKING_URI']}/health"
    (leash,) = (line for line in inside(served) if "leash.py mlflow server" in line)
    os.killpg(int(leash.split()[0]), signal.SIGKILL)

    def again() -> bool:
        mine = [line for line in inside(served) if "leash.py mlflow server" in line]
        if not mine or mine == [leash]:
            return False
        try:
            return ask(health) == "OK"
        except OSError:
            return False

    wait(again, 300)
    assert "mlflow ended with code -9" in (served / ".services/log/services.log").read_text()


def test_started_twice_is_started_once(served: Path) -> None:
    pid, before = (served / ".services/pid").read_text(), variables(served)
    said = services(served, "start").stdout
    assert before["MLFLOW_TRACKING_URI"] in said and variables(served) == before
    assert (served / ".services/pid").read_text() == pid


def test_they_listen_on_loopback_alone(served: Path) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    login = (served / ".services/postgres/pgpass").read_text().split(":")
    addresses = [value for value in variables(served).values() if value.startswith("http://")]
    ports = [*(address.removesuffix("/api").rpartition(":")[2] for address in addresses), login[1]]
    assert len(ports) == 4
    for port in ports:
        number = f"{int(port):04X}"
        assert f" 0100007F:{number} 00000000:0000 0A" in listening
        assert f" 00000000:{number} 00000000:0000 0A" not in listening


def test_no_log_and_no_command_line_repeats_a_password(served: Path) -> None:
    secrets = passwords(served)
    assert len(secrets) == 3
    lines = "\n".join(inside(served))
    assert not [secret for secret in secrets if secret in lines]
    kept = served / ".services"
    for file in (path for path in kept.rglob("*") if path.is_file() and "data" not in path.parts):
        if any(secret.encode() in file.read_bytes() for secret in secrets):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert file.name in ("env", "passwords.json", "pgpass")


def test_postgresql_asks_for_the_password(served: Path) -> None:
    port = int((served / ".services/postgres/pgpass").read_text().split(":")[1])
    login = {"host": "127.0.0.1", "port": port, "user": postgres.USER, "dbname": "prefect"}
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**login, password="guess")


def test_without_postgresql_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Mistake, match="apt-get install postgresql"):
        postgres.programs()
    assert capsys.readouterr().err.count("\n") == 1
