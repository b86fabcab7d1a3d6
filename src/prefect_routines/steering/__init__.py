"""What people send to a session, and how they answer what it waits for."""
