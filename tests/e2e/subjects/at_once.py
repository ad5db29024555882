"""What a commit changes together, and readers of every kind, who must never see anything older than somebody has seen before.

at_once.py make FILES NAMES             makes it, as version 1
at_once.py change VERSION               makes all of it say a version, in an order of its own, a file at a time
at_once.py read SEEN [pair]             reads in every way until the file SEEN.stop is there; SEEN is shared by all readers
"""
import glob, mmap, os, random, re, struct, sys


def write(path, text):
    with open(path, "w") as file: file.write(text)


def long_text(version): return ("%d\n" % version) * (1 + version % 7)


def change(version):
    def rename(number):
        old = "names/n%d-%d" % (number, version - 1)
        os.rename(old, "names/n%d-%d" % (number, version))
    def link():
        os.symlink(str(version), "link.new")
        os.rename("link.new", "link")
    def remake(path):
        write(path + ".new", long_text(version))
        os.rename(path + ".new", path)
    work = [lambda path=path: write(path, long_text(version)) for path in glob.glob("f*")]
    work += [lambda path=path: remake(path) for path in glob.glob("r*")]
    work += [lambda number=number: rename(number) for number in range(len(os.listdir("names")))]
    work += [lambda: os.truncate("size", version), link, lambda: os.setxattr("size", "user.v", b"%d" % version)]
    def put(path):
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, b"%08d" % version, 0)
        os.close(fd)
    work += [lambda path=path: put(path) for path in ("g0", "g1")]
    random.shuffle(work)
    for each in work: each()


def make(files, names):
    os.mkdir("names")
    for number in range(files):
        write("f%d" % number, long_text(1))
        write("r%d" % number, long_text(1))
    for number in range(names): write("names/n%d-1" % number, "")
    for path in ("g0", "g1"): write(path, "%08d" % 1)
    write("size", "x")
    os.setxattr("size", "user.v", b"1")
    os.symlink("1", "link")


class Reader:
    def __init__(self, seen, pair):
        self.seen = seen
        self.fds = [os.open(path, os.O_RDONLY) for path in ("g0", "g1")]
        self.maps = [mmap.mmap(fd, 8, prot=mmap.PROT_READ) for fd in self.fds]
        self.ways = [self.by_path, self.by_descriptor, self.mapped]
        if not pair:
            self.size = os.open("size", os.O_RDONLY)
            self.files = len(glob.glob("f*"))
            self.names = len(os.listdir("names"))
            self.ways += [self.whole, self.whole, self.replaced, self.length, self.length_of_open, self.listed, self.scanned, self.link,
                          self.attribute, self.is_there]

    def whole(self, letter="f"):
        path = "%s%d" % (letter, random.randrange(self.files))
        text = open(path).read()
        version = int(text.split("\n")[0])
        assert text == long_text(version), "%s says %r" % (path, text)
        return version
    def replaced(self): return self.whole("r")
    def by_path(self): return int(open(random.choice(("g0", "g1"))).read())
    def by_descriptor(self): return int(os.pread(random.choice(self.fds), 8, 0))
    def mapped(self): return int(random.choice(self.maps)[:])
    def length(self): return os.stat("size").st_size
    def length_of_open(self): return os.fstat(self.size).st_size
    def link(self): return int(os.readlink("link"))
    def attribute(self): return int(os.getxattr("size", "user.v"))
    def of_names(self, names):
        versions = {int(name.split("-")[1]) for name in names}
        assert len(versions) == 1 and len(names) == self.names, "a listing of %d names has versions %s" % (len(names), versions)
        return versions.pop()
    def listed(self): return self.of_names(os.listdir("names"))
    def scanned(self):
        names = []
        with os.scandir("names") as entries:
            for entry in entries:
                names.append(entry.name)
                if random.random() < 0.01: self.by_path()
        return self.of_names(names)
    def is_there(self):
        known = self.known()
        return known if os.path.exists("names/n%d-%d" % (random.randrange(self.names), known)) else known + 1

    def known(self): return struct.unpack("q", self.seen[:8])[0]

    def run(self, stop):
        looks, news = 0, 0
        while not os.path.exists(stop):
            way, known = random.choice(self.ways), self.known()
            found = way()
            assert found >= known, "%s: version %d, though %d was seen before" % (way.__name__, found, known)
            looks += 1
            if found > self.known():
                news += 1
                self.seen[:8] = struct.pack("q", found)
        print(looks, news)


def main():
    what, words = sys.argv[1], sys.argv[2:]
    if what == "make": make(int(words[0]), int(words[1]))
    elif what == "change": change(int(words[0]))
    else:
        file = os.open(words[0], os.O_RDWR)
        Reader(mmap.mmap(file, 8), "pair" in words).run(words[0] + ".stop")


main()
