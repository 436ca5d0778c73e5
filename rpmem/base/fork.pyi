"""Nothing of this module is seen by Python."""
