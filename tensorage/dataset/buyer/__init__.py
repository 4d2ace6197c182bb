"""The buyer: checks a log, pays, downloads from several sources, and keeps what it learned."""
