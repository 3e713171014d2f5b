"""Interop: a policy's duties inside other people's evaluation tools, one thin adapter a tool."""
