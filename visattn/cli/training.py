"""`visattn fit|validate|test|predict --config …`: LightningCLI."""

from lightning.pytorch.cli import ArgsType

from visattn.cli.program import program
from visattn.training.runs.program import run_cli


@program
def main(args: ArgsType = None) -> None:
    """The program: its exit status is 0 when all went well, 2 after a sentence that says what the user can mend."""
    run_cli(args)
