"""The stages of a night, one a file: functions of paths, params and a reporter."""
