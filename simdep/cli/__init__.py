"""What the commands of the command line do, a module for each family of them. Flags:
`simdep.cli.flags`."""
