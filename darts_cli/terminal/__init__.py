"""The terminal: console, live display, plain lines, and log of a command."""
