"""The id that the suite's server has in catalogs."""

SERVER = "everything"
