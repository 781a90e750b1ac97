# SPDX-License-Identifier: MIT
"""The page of a run: report.html beside report.json, by `rouse report`.

Kept for it, in FOLDER/stalls: the stall log of the first restore of each workload, storage and
policy; and of one workload the working set, and what a further restore touches, for the map of the
guest's memory. Nothing that goes wrong here costs the run its figures: it is told in a line.
"""

import contextlib
import os
import shutil

from harness.saving import write_stall_log


def _last_line(err):
    return (str(err).strip().splitlines() or [type(err).__name__])[-1]


class Page:
    """The page of a Story; errors: what may go wrong with it."""

    def __init__(self, story, errors):
        self.story = story
        self.errors = errors
        self.path = story.file("report.html")
        self.folder = story.file("stalls")
        # The one whose memory is shown, and stalls over time: for each policy that is one curve.
        self.workload = "idle" if "idle" in story.args.workloads else story.args.workloads[0]
        self.logs = {}  # by (workload, storage): {policy: path}
        with contextlib.suppress(OSError):
            os.unlink(self.path)  # of an earlier run
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder, exist_ok=True)

    def file(self, name):
        return os.path.join(self.folder, name)

    def keep_stalls(self, run, stalls, vcpus):
        """Of a run of the report, if it is the first of its kind."""
        logs = self.logs.setdefault((run["workload"], run["storage"]), {})
        if run["policy"] in logs:
            return
        path = self.file("{workload}-{storage}-{policy}.stalls".format(**run))
        try:
            write_stall_log(path, stalls, vcpus)
            logs[run["policy"]] = path
        except OSError as err:
            self.story.say(f"no stall log for the page: {err}")

    def keep_memory(self, saved, record):
        """The sets for the map; record(story, workload, image, wset): a restore that records."""
        if saved.workload != self.workload:
            return
        self.story.terminal.progress(f"{saved.workload}: what a restore touches", 0, 1)
        try:
            shutil.copyfile(self.story.file(f"{saved.workload}.wset"), self.file("loaded.wset"))
            record(self.story, saved.workload, saved.image, self.file("touched.wset"))
        except self.errors as err:
            self.story.say(f"the page's map of memory is not complete: {_last_line(err)}")

    def _of_stalls(self):
        """The storage whose stalls are shown, "slow" if it has several curves, and the options."""
        found = {storage: logs for (workload, storage), logs in self.logs.items()
                 if workload == self.workload and logs}
        several = [storage for storage, logs in found.items() if len(logs) > 1]
        storage = "slow" if "slow" in several else next(iter(several or found), None)
        logs = found.get(storage, {})
        # There are fewer policies than logs that rouse report takes (16).
        return storage, [f"--stalls={policy}={logs[policy]}" for policy in self.story.args.policies
                         if policy in logs]

    def write(self):
        storage, options = self._of_stalls()
        for option, name in (("--working-set", "loaded.wset"), ("--touched", "touched.wset")):
            if os.path.exists(self.file(name)):
                options += [option, self.file(name)]
        shown = f"stalls and memory: {self.workload}" + (f", {storage}" if storage else "")
        title = f"Rouse {os.path.basename(self.story.folder)} ({shown})"
        try:
            self.story.tool.run("report", "-o", self.path, "--title", title, *options,
                                self.story.report.path)
        except self.errors as err:
            self.story.say(f"no page: {_last_line(err)}")
        else:
            self.story.say(f"the page: {os.path.relpath(self.path)}")
