"""The version of rpmem, for those who cannot ask the face."""

__version__ = "0.1.0"
