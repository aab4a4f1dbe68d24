package slot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// squashfs returns what looks like one, of so many bytes before padding.
func squashfs(used int) []byte {
	image := make([]byte, (used+block-1)/block*block)
	for i := range used {
		image[i] = byte(i*7 + i>>8)
	}
	copy(image, squashfsMagic)
	binary.LittleEndian.PutUint64(image[bytesUsedStart:], uint64(used))
	return image
}

// update returns one as make appliance builds it.
func update(t *testing.T, used int, version, arch string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "update")
	if err := os.WriteFile(path, squashfs(used), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := SealFile(path, version, arch); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// partition returns a file that stands for one, with another system in it.
func partition(t *testing.T, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir-b")
	text := make([]byte, size)
	copy(text, update(t, 3*block, "0.0.1", runtime.GOARCH))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSeal(t *testing.T) {
	got := update(t, 5*block+17, "1.2.3+4.abc", "arm64")
	image := squashfs(5*block + 17)
	sum := sha256.Sum256(image)
	want := fmt.Sprintf("weir appliance update 1\nversion=1.2.3+4.abc\narch=arm64\nsize=%d\nsha256=%s\n", len(image), hex.EncodeToString(sum[:]))
	if !bytes.Equal(got[:len(image)], image) {
		t.Error("the image has changed")
	}
	if text := string(got[len(image):]); text != want+strings.Repeat("\x00", block-len(want)) {
		t.Errorf("the seal is %q", text)
	}
}

func TestSealRefuses(t *testing.T) {
	for name, text := range map[string][]byte{
		"empty": {}, "short": squashfs(2 * block)[:block], "no-squashfs": make([]byte, 3*block),
		"sealed": update(t, 2*block, "1", "amd64"),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := SealFile(path, "1.0", "amd64"); err == nil {
				t.Error("it was sealed")
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(after, text) {
				t.Errorf("the file has changed, %v", err)
			}
		})
	}
}

// sum is what sha256sum(1) says of an update.
func sum(text []byte) string {
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:])
}

func TestWrite(t *testing.T) {
	path := partition(t, 64*block)
	text := update(t, 5*block+17, "1.2.3", runtime.GOARCH)
	seal, err := Write(path, bytes.NewReader(text), sum(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got[:len(text)], text) {
		t.Errorf("the partition has other bytes than the update, %v", err)
	}
	read, err := Read(path)
	if err != nil || read != seal || read.Version != "1.2.3" {
		t.Errorf("read %+v, %v; written %+v", read, err, seal)
	}
}

// failing breaks off after some bytes, as a connection does.
type failing struct{ r io.Reader }

func (f failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err == io.EOF {
		err = errors.New("connection lost")
	}
	return n, err
}

func TestWriteRefuses(t *testing.T) {
	good := update(t, 8*block, "1.2.3", runtime.GOARCH)
	changed := func(at int) []byte {
		text := bytes.Clone(good)
		text[at] ^= 0x10
		return text
	}
	for name, c := range map[string]struct {
		update io.Reader
		kept   bool // what was in the slot is still there
		want   string
		wanted string
	}{
		"empty":        {bytes.NewReader(nil), true, "this is no update", ""},
		"text":         {strings.NewReader(strings.Repeat("a page that says not found ", 1000)), true, "does not begin as a squashfs", ""},
		"too-long":     {bytes.NewReader(update(t, 62*block+1, "1", runtime.GOARCH)), true, "room for", ""},
		"cut-short":    {bytes.NewReader(good[:5*block+100]), false, "ends after", ""},
		"no-seal":      {bytes.NewReader(good[:8*block]), false, "the seal", ""},
		"broken-off":   {failing{bytes.NewReader(good[:6*block])}, false, "connection lost", ""},
		"damaged":      {bytes.NewReader(changed(3*block + 5)), false, "damaged on its way", ""},
		"first-block":  {bytes.NewReader(changed(100)), false, "damaged on its way", ""},
		"damaged-seal": {bytes.NewReader(changed(8*block + 3)), false, "no seal", ""},
		"other-arch":   {bytes.NewReader(update(t, 2*block, "1", "riscv64")), false, "it is for riscv64", ""},
		// As it is if somebody puts another in its place, seal and all.
		"another": {bytes.NewReader(update(t, 8*block, "1.2.4", runtime.GOARCH)), false, "another update", sum(good)},
	} {
		t.Run(name, func(t *testing.T) {
			path := partition(t, 63*block)
			_, err := Write(path, c.update, c.wanted)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			seal, err := Read(path)
			if kept := err == nil && seal.Version == "0.0.1"; kept != c.kept {
				t.Errorf("afterwards the slot has %+v, %v", seal, err)
			}
			if !c.kept && err == nil {
				t.Error("what was left of it looks bootable")
			}
		})
	}
}

func TestRunning(t *testing.T) {
	for line, want := range map[string]struct {
		slot  Slot
		trial bool
	}{
		"root=/dev/disk/by-partlabel/weir-a ro weir.slot=a  quiet": {A, false},
		"weir.slot=b weir.trial console=ttyS0\n":                   {B, true},
		"weir.slot=b weir.trials":                                  {B, false},
		"root=/dev/sda1":                                           {"", false},
		"weir.slot=c":                                              {"", false},
	} {
		s, trial, err := Running(line)
		if s != want.slot || trial != want.trial || (err != nil) != (want.slot == "") {
			t.Errorf("%q: %q, %v, %v; want %q, %v", line, s, trial, err, want.slot, want.trial)
		}
	}
}
