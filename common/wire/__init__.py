"""The messages between the processes: their content, their routes, their sockets and their intervals."""
