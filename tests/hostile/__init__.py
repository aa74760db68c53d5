"""Damaged and hostile sources: what a stranger's file, a bad disk or a copy script's slip may put before a command.

    case       what a case is: a good source, how it is damaged, what is to come of it
    bases      the good sources, as trainers write them
    nursery    a warm process that forks a real `vlconv` for each case, under limits
    running    the same from the side of a test, and what is held against every run
    …          one file of cases for each kind
    table      all of them
    fuzz       endless cases, by chance

`make hostile` runs the table and prints what README says of it; `make fuzz` damages by chance. What that finds becomes
a case here: a function that damages a good source, and what is to come of it.
"""
