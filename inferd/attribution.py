"""Attribution of a request, which its hold, its usage row and its refunds have in common."""

from __future__ import annotations

import msgspec

from inferd.subjects import subjects_of


class Attribution(msgspec.Struct, frozen=True):
    """The team, project, user and key that a request is billed to, and the deployment and service tier that served it.

    The fields are in the order of the columns of holds, usage, refunds and usage_daily. A msgspec struct, as the
    commands that contain it: its constructor is several times as fast as a frozen dataclass's.
    """

    team: str
    project: str
    user: str | None
    key_id: str
    deployment: str
    service_tier: str

    @property
    def subjects(self) -> list[str]:
        """The subjects whose counters the request changes, the team first."""
        return subjects_of(self.team, self.project, self.user, self.key_id)
