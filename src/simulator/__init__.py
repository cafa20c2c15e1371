"""A fleet to look at: simulated clusters, and everything that runs on them, in one command.

Two halves meet in a `store`. What speaks to agents: `protocol` (HTTP), `listing`, `watching`, `discovery`,
`exporters`, and `faults` to disturb them. What lives: `scenario` draws the next change from the tables of
`lives`, `happenings` carries it out on the `world`, `scheduler` and `dispatch` give out machines, `render` and
the `owners_*` write it all as objects. `run` and `fleet` are the two processes of `watchbill demo`.
"""
