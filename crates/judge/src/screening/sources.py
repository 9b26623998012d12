# Parses sources and says what a competition does not want in them. Run by a competition's own interpreter in a jail; it
# imports nothing of the entry and runs none of it. Rules and file names come by standard input, one in a line.
import ast
import sys

# From here on what ends this program is what it reads.
print("ready", flush=True)

modules, names, attributes, files = set(), set(), set(), []
literal_bytes_max, dynamic = 0, True
for line in sys.stdin.read().splitlines():
    word, _, value = line.partition(" ")
    if word == "module":
        modules.add(value)
    elif word == "name":
        names.add(value)
    elif word == "attribute":
        attributes.add(value)
    elif word == "literal":
        literal_bytes_max = int(value)
    elif word == "static":
        dynamic = False
    elif word == "file":
        files.append(value)

FINDINGS_MAX = 20
# More parts than any name that is looked for has, "builtins" before it.
PARTS_MAX = 1 + max((name.count(".") + 1 for name in names), default=0)
# One more character than the longest of them: a name that is cut there still equals none, and long ones cost nothing.
NAME_MAX = 1 + max((len(name) for name in modules | names), default=0)


def forbidden_module(module):
    parts = module.split(".")
    heads = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return next((head for head in heads if head in modules), None)


class File:
    def __init__(self, tree):
        self.found = []
        self.known = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.imports(node)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                self.imports_from(node)
        for node in ast.walk(tree):
            self.look(node)

    def say(self, kind, node, text):
        self.found.append((getattr(node, "lineno", 0), kind, text))

    def imports(self, node):
        for name in node.names:
            module = name.name[:NAME_MAX]
            bad = forbidden_module(module)
            if bad:
                self.say("forbidden", node, f"imports {bad}")
            if name.asname:
                self.known[name.asname] = module

    def imports_from(self, node):
        module = (node.module or "")[:NAME_MAX]
        for name in node.names:
            whole = f"{module}.{name.name}"[:NAME_MAX]
            bad = forbidden_module(module) or forbidden_module(whole)
            if bad:
                self.say("forbidden", node, f"imports {bad}")
            elif whole in names or (module == "builtins" and name.name in names):
                self.say("forbidden", node, f"uses {whole}")
            elif name.name == "*" and any(known.startswith(module + ".") for known in names):
                self.say("forbidden", node, f"imports everything of {module}")
            self.known[name.asname or name.name] = whole

    def dotted(self, node):
        parts = []
        while isinstance(node, ast.Attribute):
            if len(parts) == PARTS_MAX:
                return None
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        whole = ".".join([self.known.get(node.id, node.id), *reversed(parts)])
        return whole.removeprefix("builtins.")

    def look(self, node):
        if isinstance(node, ast.Name):
            if node.id in attributes:
                self.say("forbidden", node, f"uses {node.id}")
            elif isinstance(node.ctx, ast.Load) and self.dotted(node) in names and self.known.get(node.id) is None:
                self.say("forbidden", node, f"uses {node.id}")
        elif isinstance(node, ast.Attribute):
            whole = self.dotted(node)
            if node.attr in attributes:
                self.say("forbidden", node, f"uses {node.attr}")
            elif whole in names:
                self.say("forbidden", node, f"uses {whole}")
        elif isinstance(node, ast.Call):
            self.call(node)
        elif isinstance(node, ast.Constant):
            self.constant(node)
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
            count = len(node.keys if isinstance(node, ast.Dict) else node.elts)
            if count * 8 > literal_bytes_max:
                self.say("hidden", node, f"a list of {count} values written out")

    def call(self, node):
        if not (isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "delattr")):
            return
        name = node.args[1] if len(node.args) > 1 else None
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            whole = self.dotted(node.args[0])
            whole = f"{whole}.{name.value}".removeprefix("builtins.")
            if whole in names:
                self.say("forbidden", node, f"uses {whole}")
        elif not dynamic:
            self.say("forbidden", node, f"calls {node.func.id} with a name that is computed")

    def constant(self, node):
        value = node.value
        if isinstance(value, str):
            if value in attributes:
                self.say("forbidden", node, f"names {value}")
            value = value.encode("utf-8", "surrogatepass")
        if isinstance(value, bytes) and len(value) > literal_bytes_max:
            self.say("hidden", node, f"a text of {len(value)} bytes written out")
        elif isinstance(value, int) and value.bit_length() > literal_bytes_max * 8:
            self.say("hidden", node, f"a number of {value.bit_length()} bits written out")


def look_at(name):
    """What is found in a file; nothing where it cannot be parsed: what Python gives up on depends on its version and the machine."""
    try:
        with open(name, "rb") as source:
            tree = ast.parse(source.read())
        return File(tree).found
    except SyntaxError as error:
        # The program itself must parse. "Too deep" and its like are bounds of this parser, no faults of spelling.
        if name == files[0] and error.msg and "too " not in error.msg and error.lineno:
            return [(error.lineno, "invalid", f"does not parse: {error.msg}")]
        reason = error.msg
    except (ValueError, RecursionError, MemoryError) as error:
        reason = type(error).__name__
    return [(0, "unread", f"not looked at: {reason}")]


# Counted apart: however many files are not read, what is found in the others is told.
found = unread = 0
for name in files:
    for line, kind, text in sorted(set(look_at(name))):
        if kind == "unread":
            count = unread = unread + 1
        else:
            count = found = found + 1
        if count <= FINDINGS_MAX:
            print(kind, name, line, text, sep="\t")
print("looked at", len(files), found, sep="\t")
