"""`python src/realdamage/synthesize.py …`: make a set of photos by a recipe.

The command is in commands/synthesize.py.
"""

from realdamage.commands.synthesize import main

if __name__ == "__main__":
    main()
