"""`python -m quantizers`."""

from quantizers.cli.main import run

if __name__ == "__main__":
    run()
