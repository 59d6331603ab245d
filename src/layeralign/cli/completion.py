"""`--install-completion`: tab completion for bash, zsh and fish."""

from cyclopts.completion.install import create_install_completion_command

from layeralign.cli.app import app

install = create_install_completion_command(app.install_completion, add_to_startup=True)
