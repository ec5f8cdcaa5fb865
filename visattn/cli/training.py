"""`visattn fit|validate|test|predict --config …`: LightningCLI."""

from lightning.pytorch.cli import ArgsType

from visattn.cli.program import program
from visattn.training.runs.program import run_cli


@program
def main(args: ArgsType = None) -> None:
    """Command-line entry point; the exit status is 0 on success, 2 after an error that the user can fix."""
    run_cli(args)
