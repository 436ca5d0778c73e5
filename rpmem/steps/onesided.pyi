# Nothing here is visible to Python: steps are chosen by name in rpmem.engine.lanegroup.
