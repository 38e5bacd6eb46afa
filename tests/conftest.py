"""Settings that must precede the import of torch."""

import tasks  # noqa: F401  (its threads spin but shortly)
