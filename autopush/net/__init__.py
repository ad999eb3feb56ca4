"""Ways out of the process, and what lies under its sockets."""
