"""`python -m tests.recording` writes the recorded files anew: `git diff` shows what has changed."""

from __future__ import annotations

from tests.recording.record import path_of, take, text_of

if __name__ == "__main__":
    for name, value in take().items():
        path_of(name).write_text(text_of(value))
        print(f"wrote {path_of(name)}")
