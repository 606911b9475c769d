"""The command line: `main` declares all commands, `commands` has one file a noun, `composition` is `inferd serve`.

Imports at the top of a command's module are cheap, as every command pays for them.
"""
