# Nothing here is visible to Python: _fake_fabric makes lanes of it.
