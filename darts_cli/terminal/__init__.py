"""What is shown while a command runs: the console, the live display, plain lines, the log."""
