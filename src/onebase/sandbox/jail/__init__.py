"""What runs programs that nobody has read. It is started by `sandbox` as a process of its own, with the standard library alone, as package
`jail`: so its modules import each other by relative names.

server      forks, for each program, a supervisor
supervisor  starts the two below, ends them in time, says the verdict
judge       runs the tests, and never the program: it asks for values, and compares them itself
program     runs the program, and never the tests: it is asked for values
wire, handles, remote, peer   how values cross between the two: as plain data, or as handles
locks       what shuts both in: limits, namespaces, landlock(7), seccomp(2)
calls       the system calls that are let through
"""
