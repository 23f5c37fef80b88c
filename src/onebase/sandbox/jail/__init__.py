"""Runs untrusted programs. `sandbox` starts it in a separate process, with only the standard library, as package `jail`: so its modules use
relative imports.

server      forks a supervisor for each program
supervisor  starts the two below, kills them after the time limit, reports the verdict
judge       runs the tests, and never the program: it requests values, and compares them itself
program     runs the program, and never the tests: it returns values on request
wire, handles, remote, peer   pass values between the two: as plain data, or as handles
locks       restricts both: limits, namespaces, landlock(7), seccomp(2)
calls       the allowed system calls
"""
