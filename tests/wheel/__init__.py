"""Making the wheels, and installing them on machines made afresh."""
