"""The command line: `app.py` puts it together, and each benchmark is a sub-command in its own file.

Invalid input prints a sentence and exits with code 2. Ctrl-C reports the finished results and exits with 130.
"""
