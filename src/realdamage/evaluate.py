"""`python src/realdamage/evaluate.py …`: score photos with a checkpoint or model file and measure.

The command is in commands/evaluate.py.
"""

from realdamage.commands.evaluate import main

if __name__ == "__main__":
    main()
