"""The commands of realrun, a module each; they have the form of those of simdep.

A command has HELP, EXAMPLES, `add_flags(parser)` and `run(args) -> exit code`, and imports torch,
and what needs it, inside `run`: --help answers at once.
"""
