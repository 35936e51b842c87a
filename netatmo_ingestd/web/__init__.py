"""The daemon's own small web server, and what it answers."""
