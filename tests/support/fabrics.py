"""The fabric that tests of lanes use where they do not name one."""

#: A provider's name.
default = "tcp"
