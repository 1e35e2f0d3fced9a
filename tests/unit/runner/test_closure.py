from stillhouse.runner.closure import import_closure, package_root


def test_the_closure_holds_what_is_imported_and_what_that_imports():
    closure = import_closure("stillhouse.params.document")
    assert "stillhouse/params/document.py" in closure
    assert "stillhouse/params/base.py" in closure
    assert "stillhouse/errors.py" in closure


def test_imports_inside_functions_count():
    assert "stillhouse/tracking/runs.py" in import_closure("stillhouse.runner.stage")


def test_packages_that_hold_only_a_docstring_do_not_count():
    assert not [file for file in import_closure("stillhouse.params.document") if file.endswith("__init__.py")]


def test_every_file_of_a_closure_exists():
    assert all((package_root() / file).is_file() for file in import_closure("stillhouse.cli.main"))


def test_a_module_that_imports_nothing_of_ours_is_its_own_closure():
    assert import_closure("stillhouse.errors") == ("stillhouse/errors.py",)
