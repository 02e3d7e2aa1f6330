"""Several things that are wrong with a project, told together."""

from __future__ import annotations

from trimtab.core.errors import ProjectError


class Problems:
    """Collects what is wrong, in the order in which it was found; the same thing is told once."""

    def __init__(self) -> None:
        self.found: list[ProjectError] = []

    def add(self, message: str, *, where: str = "", fix: str = "") -> None:
        """Note one thing that is wrong."""
        self.note(ProjectError(message, where=where, fix=fix))

    def note(self, error: ProjectError) -> None:
        """Note an error that was raised elsewhere."""
        if error.as_data() not in [known.as_data() for known in self.found]:
            self.found.append(error)

    def check(self) -> None:
        """Raise what was found: one error as it is, several as one that lists them.

        Raises:
            ProjectError: something was found.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise self.found[0]
        lines = [f"{len(self.found)} things are wrong with the project"]
        lines += ["  " + str(error).replace("\n", "\n  ") for error in self.found]
        raise ProjectError("\n".join(lines))
