"""`python -m vlconv`."""

from vlconv.app import main

main()
