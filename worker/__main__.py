"""`python -m worker`: serve, fleet, accelerators, export and statistics."""

from worker.commands import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
