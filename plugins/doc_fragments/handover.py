# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """The two ends of a bot's move."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name of the bot.
    type: str
    required: true
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  state:
    description:
      - V(expected) marks the bot at its target, so that nobody starts it there before its data have come. What is there
        already must be what a move left or brought.
      - V(held) stops it at its source, so that nobody starts it there any more.
      - V(free) takes the mark away at the target, if all that is said in O(conversations) is there. Nothing is started.
      - V(arrived) compares what the bot has there with O(conversations), and changes nothing.
      - V(returned) takes the mark away at the source, starts the bot if it ran, and waits until it is ready.
      - V(gone) removes it. Its data are put aside unless O(purge_data).
    type: str
    required: true
    choices: [expected, held, free, arrived, returned, gone]
  source:
    description: Where the bot comes from, for the mark.
    type: str
    required: true
  target:
    description: Where it goes, for the mark.
    type: str
    required: true
  conversations:
    description: What V(held) returned at the source. Less than that is an error.
    type: dict
  purge_data:
    description: With V(gone), delete the data; at the source also what earlier moves put aside.
    type: bool
    default: false
  timeout:
    description: Seconds that the bot may take to stop or to become ready.
    type: int
    default: 300
"""
