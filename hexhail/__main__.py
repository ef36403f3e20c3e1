"""`python -m hexhail`: the command, for processes that start it by module."""

from hexhail.cli import main

if __name__ == "__main__":
    main()
