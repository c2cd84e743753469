"""`python src/realdamage/export.py …`: write a checkpoint as one ONNX file.

The command is in commands/export.py.
"""

from realdamage.commands.export import main

if __name__ == "__main__":
    main()
