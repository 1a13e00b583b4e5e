"""`python -m worker`: serve, fleet, accelerators, export and statistics."""

from worker.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
