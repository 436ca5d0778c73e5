"""The version of rpmem, for modules that cannot import the package's public face."""

__version__ = "0.2.0.dev0"
