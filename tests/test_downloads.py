"What is published, from a server on the loopback address that behaves as badly as servers do."

import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
import pytest
import torch
from logocap import LogoCap
from logocap.checkpoints import find_weights
from logocap.downloads import Archive, Published, fetch, provide, unpack
import logocap.downloads


class Server(http.server.BaseHTTPRequestHandler):
    "Knows ranges, unless told not to; cuts every answer after so many bytes, if told to."

    def do_GET(self):
        site = self.server
        site.asked.append((self.path, self.headers.get('Range')))
        content = site.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if self.headers.get('Range') and site.ranges:
            start = int(self.headers['Range'].removeprefix('bytes=').rstrip('-'))
            if start >= len(content):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(content)}')
                return self.end_headers()
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        else:
            self.send_response(200)
        self.send_header('Content-Length', str(len(content) - start))
        self.send_header('Content-Type', site.kind)
        self.end_headers()
        self.wfile.write(content[start : start + site.cut] if site.cut else content[start:])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
    server.files, server.asked, server.ranges, server.cut = {}, [], True, 0
    server.kind = 'application/octet-stream'
    server.address = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(logocap.downloads, 'PAUSE', 0.01)
    yield server
    server.shutdown()


CONTENT = os.urandom(3_000_000)


def zipped(entries, links=()):
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, '/etc/passwd')
    return content.getvalue()


def tarred(entries, links=()):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w:gz') as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
            archive.addfile(info)
    return content.getvalue()


@pytest.mark.parametrize('ranges', (True, False))
def test_broken_connections(site, ranges, tmp_path):
    site.files['/a.bin'], site.ranges, site.cut = CONTENT, ranges, 1_200_000
    file = tmp_path / 'new' / 'a.bin'
    if not ranges:  # each try begins anew and comes no farther
        with pytest.raises(ConnectionError, match='the same command goes on'):
            fetch(f'{site.address}/a.bin', file)
        assert not file.exists() and (tmp_path / 'new/a.bin.part').is_file()
        site.cut = 0
    fetch(f'{site.address}/a.bin', file)
    assert file.read_bytes() == CONTENT
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / 'new/a.bin.sha256').read_text() == f'{sha256}  a.bin\n'
    assert sorted(p.name for p in file.parent.iterdir()) == ['a.bin', 'a.bin.sha256']
    if ranges:
        starts = [int(r.removeprefix('bytes=').rstrip('-')) for _, r in site.asked[1:]]
        assert len(starts) == 2 and starts[0] > 1_150_000 and starts[1] > 2_300_000


def test_the_next_run_goes_on(site, tmp_path):
    site.files['/a.bin'] = CONTENT
    (tmp_path / 'a.bin.part').write_bytes(CONTENT[:1000])
    fetch(f'{site.address}/a.bin', tmp_path / 'a.bin')
    assert site.asked == [('/a.bin', 'bytes=1000-')]
    (tmp_path / 'b.bin.part').write_bytes(CONTENT)  # complete, and nobody has noticed
    fetch(f'{site.address}/a.bin', tmp_path / 'b.bin')
    assert (tmp_path / 'b.bin').read_bytes() == CONTENT
    (tmp_path / 'c.bin.part').write_bytes(CONTENT + b'more')  # of another file
    fetch(f'{site.address}/a.bin', tmp_path / 'c.bin')
    assert (tmp_path / 'c.bin').read_bytes() == CONTENT


def test_wrong_hashes(site, tmp_path):
    site.files['/a.bin'] = CONTENT
    for digest in ('md5:' + '0' * 32, 'sha256:12345678'):
        with pytest.raises(ValueError, match='a.bin: what came has the .* it is deleted'):
            fetch(f'{site.address}/a.bin', tmp_path / 'a.bin', digest)
        assert not list(tmp_path.iterdir())
    right = 'md5:' + hashlib.md5(CONTENT).hexdigest()
    fetch(f'{site.address}/a.bin', tmp_path / 'a.bin', right)
    assert [p.name for p in tmp_path.iterdir()] == ['a.bin']


def test_answers_that_are_no_file(site, tmp_path):
    site.files['/a.zip'], site.kind = b'<html>log in</html>', 'text/html; charset=utf-8'
    with pytest.raises(ValueError, match='a web page instead of the file'):
        fetch(f'{site.address}/a.zip', tmp_path / 'a.zip')
    with pytest.raises(ValueError, match='the server says 404'):
        fetch(f'{site.address}/b.zip', tmp_path / 'b.zip')
    with pytest.raises(ConnectionError, match='no connection'):
        fetch('http://127.0.0.1:9/a.zip', tmp_path / 'a.zip')
    assert not list(tmp_path.iterdir())


def test_a_full_disk(site, tmp_path, monkeypatch):
    site.files['/a.bin'] = CONTENT
    usage = type('usage', (), dict(free=1_000_000))
    monkeypatch.setattr('logocap.files.shutil.disk_usage', lambda _: usage)
    with pytest.raises(OSError, match='needs 3.0 MB at least, and there are 1.0 MB left'):
        fetch(f'{site.address}/a.bin', tmp_path / 'a.bin')
    published = Published((Archive(f'{site.address}/a.bin', 'a/*', size=10**9),), 'free')
    monkeypatch.setitem(logocap.downloads.CATALOG, 'a', published)
    with pytest.raises(OSError, match='needs 2000.0 MB at least'):
        provide('a', tmp_path)
    assert len(site.asked) == 1


HOSTILE = ('../up.jpg', '/abs.jpg', 'val/../../up.jpg', 'val/./x.jpg', 'val\\x.jpg', 'C:/x.jpg')


@pytest.mark.parametrize('packed', (zipped, tarred))
def test_hostile_archives(packed, tmp_path):
    entries = {name: b'x' for name in HOSTILE} | {'val/1.jpg': b'1', 'val/deep/2.jpg': b'2'}
    (tmp_path / 'in').mkdir()
    (tmp_path / 'a.bin').write_bytes(packed(entries, links=['val/link.jpg']))
    archive = Archive('http://a/a.bin', 'val/*.jpg')
    assert unpack(tmp_path / 'a.bin', archive, tmp_path / 'in') == 1
    everything = [p for p in tmp_path.rglob('*') if p.is_file() or p.is_symlink()]
    assert sorted(p.name for p in everything) == ['1.jpg', 'a.bin']


@pytest.mark.parametrize('packed', (zipped, tarred))
def test_torn_archives(packed, tmp_path):
    content = packed({f'val/{n}.jpg': CONTENT[:50_000] for n in range(9)})
    archive = Archive('http://a/a.bin', 'val/*.jpg', 9)
    for size in (0, 100, len(content) // 2):
        (tmp_path / 'a.bin').write_bytes(content[:size])
        with pytest.raises(ValueError, match='a.bin: (not a readable archive|holds .* of 9 files)'):
            unpack(tmp_path / 'a.bin', archive, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ['a.bin']


@pytest.fixture
def catalog(site, tiny, monkeypatch, tmp_path):
    "A small COCO and released checkpoints, laid out as the published ones."
    from safetensors.torch import load_file

    checkpoint = io.BytesIO()
    torch.save(load_file(tiny), checkpoint)
    names = ('logocap-hrnet-w32-coco.pth.tar', 'logocap-hrnet-w48-coco.pth.tar')
    site.files['/logocap.tar.gz'] = tarred({f'w/{n}': checkpoint.getvalue() for n in names})
    site.files['/val2017.zip'] = zipped({f'val2017/{n}.jpg': b'jpeg' for n in range(5)})
    site.files['/annotations.zip'] = zipped(
        {
            f'annotations/{kind}_{split}2017.json': b'{}'
            for kind in ('person_keypoints', 'instances')
            for split in ('val', 'train')
        }
    )
    annotations = Archive(
        f'{site.address}/annotations.zip', 'annotations/person_keypoints_*2017.json', 2
    )
    images = Archive(f'{site.address}/val2017.zip', 'val2017/*.jpg', 5, size=1000)
    released = Archive(
        f'{site.address}/logocap.tar.gz', 'logocap-hrnet-w*-coco.pth.tar', 2, flat=True
    )
    small = {
        'coco-val': Published((annotations, images), 'terms'),
        'w32': Published((released,), 'terms', names[0]),
        'w48': Published((released,), 'terms', names[1]),
    }
    monkeypatch.setattr(logocap.downloads, 'CATALOG', small)
    monkeypatch.setenv('LOGOCAP_CACHE', str(tmp_path / 'cache'))
    return site


def test_the_command(catalog, inside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = inside('logocap-download', 'coco-val', 'w32', 'w48')
    assert done.returncode == 0, done.stderr
    assert 'coco-val: 0 MB and a file of unpublished size to data/coco (terms)' in done.stdout
    coco = tmp_path / 'data/coco'
    there = sorted(p.relative_to(coco).as_posix() for p in coco.rglob('*.j*g'))
    assert there == [f'val2017/{n}.jpg' for n in range(5)]
    kept = sorted(p.name for p in (coco / 'annotations').iterdir())
    assert kept == ['person_keypoints_train2017.json', 'person_keypoints_val2017.json']
    asked = [path for path, _ in catalog.asked]
    assert asked == ['/annotations.zip', '/val2017.zip', '/logocap.tar.gz']  # w48 came with w32

    done = inside('logocap-download', 'coco-val', 'w32')
    assert done.returncode == 0 and len(catalog.asked) == 3  # nothing is fetched twice
    (coco / 'val2017/3.jpg').unlink()
    assert inside('logocap-download', 'coco-val').returncode == 0
    assert (coco / 'val2017/3.jpg').is_file() and len(catalog.asked) == 4
    assert not list(coco.rglob('*.zip')) and not list(coco.rglob('.unpacked*'))

    done = inside('logocap-download', 'w32', '--to', tmp_path / 'here')
    assert (tmp_path / 'here/logocap-hrnet-w32-coco.pth.tar').is_file()
    done = inside('logocap-download', 'w33')
    assert done.returncode == 1 and 'w33: there are coco-val, w32, w48 and ochuman' in done.stderr
    assert inside('logocap-download').returncode == 1
    done = inside('logocap-download', '--list')
    assert done.returncode == 0 and 'ochuman: 667 MB; given out by its authors' in done.stdout


def test_ochuman(inside, tmp_path):
    done = inside('logocap-download', 'ochuman', '--to', tmp_path)
    assert done.returncode == 1 and 'form.html?dataset=ochuman' in done.stdout
    assert 'images' in done.stdout.splitlines()[-1]
    (tmp_path / 'images').mkdir()
    for split in ('val', 'test'):
        (tmp_path / f'ochuman_coco_format_{split}_range_0.00_1.00.json').touch()
    done = inside('logocap-download', 'ochuman', '--to', tmp_path)
    assert done.returncode == 0 and 'all there' in done.stdout


def test_published_weights(catalog, inside, capsys):
    model = LogoCap.from_pretrained('w32')
    assert 'w32: size not published to' in capsys.readouterr().err
    catalog.shutdown()  # from here on offline
    again = LogoCap.from_pretrained('w48')
    assert again.widths == model.widths and len(catalog.asked) == 1
    assert find_weights('w32').name == 'logocap-hrnet-w32-coco.pth.tar'
    with pytest.raises(FileNotFoundError, match='w33: no such checkpoint; by name .* w32, w48'):
        LogoCap.from_pretrained('w33')
    for name in ('logocap-predict', 'logocap-train'):
        said = ' '.join(inside(name, '--help').stdout.split())
        assert 'people-11' in said and 'fetched on first use: w32, w48' in said


def test_weights_without_a_network(catalog, inside):
    catalog.files.clear()
    done = inside('logocap-predict', 'a.jpg', '--weights', 'w32')
    assert done.returncode == 1 and done.stderr.count('\n') == 1  # the image is missing
    catalog.server_close()
    catalog.shutdown()
    with pytest.raises((ConnectionError, ValueError), match='no connection|says 404'):
        LogoCap.from_pretrained('w32')


def test_two_processes_fetch_once(catalog, tmp_path):
    script = '''
import sys
import logocap.downloads as d
a = d.Archive(sys.argv[1] + '/val2017.zip', 'val2017/*.jpg', 5)
d.CATALOG['x'] = d.Published((a,), 'terms')
d.provide('x', sys.argv[2])
'''
    command = [sys.executable, '-c', script, catalog.address, str(tmp_path / 'to')]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [p.wait(60) for p in running] == [0, 0]
    assert len(list((tmp_path / 'to/val2017').iterdir())) == 5
    assert len(catalog.asked) == 1
