"""Going on with a run that was stopped, was killed or lost its machine."""

from .checkpoints import Checkpoints, DamagedError, forget_replaced, problems_of, set_aside, steps_in, take_back
from .loop import Run
from .runs import RunFolder


def resume(run: Run, folder: RunFolder, *, older: bool) -> list[str]:
    """Takes a run to its newest checkpoint, and its folder's logs back to what they held there.

    Args:
        run: at its beginning.
        folder: its own, held.
        older: whether a damaged checkpoint is set aside and the one before it taken.

    Returns:
        What a reader should know, in lines.

    Raises:
        ValueError: the images are not those with which the run began, or a log is cut off.
        DamagedError: the newest checkpoint is not what was written, and ``older`` is False. Nothing is changed then,
            but that a checkpoint which was about to be replaced has its name again.
    """
    folder.check_data(run.source)
    take_back(folder.checkpoints)
    paths = {step: folder.checkpoints / str(step) for step in steps_in(folder.checkpoints)}
    damaged = {step: found for step, checkpoint in paths.items() if (found := problems_of(checkpoint))}
    sound = [step for step in paths if step not in damaged]
    newest = max(paths, default=None)
    if newest in damaged and not older:
        then = (
            f"the run would go on from {paths[sound[-1]]}" if sound else "there is none before it: it would begin anew"
        )
        raise DamagedError(
            f"checkpoint {paths[newest]} is damaged: {'; '.join(damaged[newest])}; with --resume-older {then}"
        )
    notes = [f"{paths[step]} is damaged and was set aside as {set_aside(paths[step])}" for step in damaged]
    forget_replaced(folder.checkpoints)
    run.checkpoints = Checkpoints(folder.checkpoints, run.config.keep)
    if sound:
        run.restore(sound[-1])
    folder.go_back_to(run.place.epochs, run.place.step)
    return [*notes, _from_where(run)]


def _from_where(run: Run) -> str:
    if not run.place.step:
        return "there is no checkpoint yet: it begins anew"
    last = ", the last one: what follows the epochs is made anew" if run.place.epochs == run.config.epochs else ""
    return f"goes on after step {run.place.step}{last}"
