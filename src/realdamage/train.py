"""`python src/realdamage/train.py +experiment=…`: fine-tune a ViT.

The command is in commands/train.py.
"""

from realdamage.commands.train import main

if __name__ == "__main__":
    main()
