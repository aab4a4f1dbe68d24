package slot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// An update is a squashfs image, padded to whole blocks, and one block of text that says
// what it is. The partition gets both, so a slot can tell its version.
const (
	block      = 4096
	sealHeader = "weir appliance update 1\n"
)

// Where a squashfs says what it is and how long (kernel, fs/squashfs/squashfs_fs.h,
// struct squashfs_super_block).
const (
	squashfsMagic  = "hsqs"
	bytesUsedStart = 40
)

// Seal is what an update says of itself.
type Seal struct {
	Version string
	Arch    string // as GOARCH has it
	Size    int64  // of the squashfs with its padding, bytes
	SHA256  string // of these, hexadecimal
}

// imageSize returns the length of the squashfs that begins with a block.
func imageSize(first []byte) (int64, error) {
	if !bytes.HasPrefix(first, []byte(squashfsMagic)) {
		return 0, errors.New("this is no update: it does not begin as a squashfs")
	}
	used := binary.LittleEndian.Uint64(first[bytesUsedStart:])
	if used > 1<<40 || used < block {
		return 0, fmt.Errorf("this is no update: a squashfs of %d bytes", used)
	}
	return int64(used+block-1) / block * block, nil
}

func (s *Seal) format() []byte {
	text := fmt.Sprintf("%sversion=%s\narch=%s\nsize=%d\nsha256=%s\n", sealHeader, s.Version, s.Arch, s.Size, s.SHA256)
	return append([]byte(text), make([]byte, block-len(text))...)
}

func parseSeal(text []byte) (s Seal, err error) {
	rest, ok := strings.CutPrefix(string(bytes.TrimRight(text, "\x00")), sealHeader)
	if !ok {
		return s, errors.New("there is no seal behind it: it was not built by make appliance, or is cut short")
	}
	for line := range strings.Lines(rest) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "version":
			s.Version = value
		case "arch":
			s.Arch = value
		case "size":
			s.Size, err = strconv.ParseInt(value, 10, 64)
		case "sha256":
			s.SHA256 = value
		}
		if err != nil {
			return s, fmt.Errorf("seal: %s: %w", name, err)
		}
	}
	return s, nil
}

// SealFile makes a squashfs an update: it appends its seal.
func SealFile(path, version, arch string) (err error) {
	if strings.ContainsAny(version+arch, "\n=") || len(version) > 200 {
		return fmt.Errorf("seal %s: %q is no version", path, version)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return fmt.Errorf("seal %s: %w", path, err)
	}
	first := make([]byte, block)
	if _, err := f.ReadAt(first, 0); err != nil {
		return fmt.Errorf("seal %s: %w", path, err)
	}
	if size, err := imageSize(first); err != nil || size != n {
		return errors.Join(err, fmt.Errorf("seal %s: %d bytes, want the %d of the squashfs padded to whole blocks", path, n, size))
	}
	s := Seal{Version: version, Arch: arch, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	if _, err := f.WriteAt(s.format(), n); err != nil {
		return fmt.Errorf("seal %s: %w", path, err)
	}
	return nil
}

// Read returns what is in a slot, or in a file.
func Read(path string) (Seal, error) {
	f, err := os.Open(path)
	if err != nil {
		return Seal{}, err
	}
	defer f.Close()
	first := make([]byte, block)
	if _, err := f.ReadAt(first, 0); err != nil {
		return Seal{}, err
	}
	size, err := imageSize(first)
	if err != nil {
		return Seal{}, errors.New("nothing that could boot")
	}
	text := make([]byte, block)
	if _, err := f.ReadAt(text, size); err != nil {
		return Seal{}, err
	}
	return parseSeal(text)
}

// Write fills a partition with an update. What was there cannot boot from the first
// byte on, and what is new cannot before all of it is there and has been read back as
// it was sealed.
//
// Wanted is the SHA-256 that the update, with its seal, has to have, hexadecimal; with ""
// any does.
func Write(device string, update io.Reader, wanted string) (s Seal, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write update to %s: %w", device, err)
		}
	}()
	whole := sha256.New()
	update = io.TeeReader(update, whole)
	first := make([]byte, block)
	if _, err := io.ReadFull(update, first); err != nil {
		return s, fmt.Errorf("this is no update: %w", err)
	}
	size, err := imageSize(first)
	if err != nil {
		return s, err
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	room, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return s, err
	}
	if size+block > room {
		return s, fmt.Errorf("it has %d bytes, and the slot room for %d", size+block, room)
	}
	if err := writeBlock(f, make([]byte, block), 0); err != nil {
		return s, err
	}
	sum := sha256.New()
	sum.Write(first)
	if err := copyTo(f, update, size, sum); err != nil {
		return s, err
	}
	text := make([]byte, block)
	if _, err := io.ReadFull(update, text); err != nil {
		return s, fmt.Errorf("the seal: %w", err)
	}
	if s, err = parseSeal(text); err != nil {
		return s, err
	}
	if err := s.check(size, sum); err != nil {
		return s, err
	}
	if got := hex.EncodeToString(whole.Sum(nil)); wanted != "" && !strings.EqualFold(got, wanted) {
		return s, fmt.Errorf("it has the sha-256 %s, wanted was %s: it is another update", got, wanted)
	}
	if err := writeBlock(f, text, size); err != nil {
		return s, err
	}
	if err := readBack(f, first, &s); err != nil {
		return s, err
	}
	return s, writeBlock(f, first, 0)
}

// copyTo writes all of the image but its first block.
func copyTo(f *os.File, update io.Reader, size int64, sum hash.Hash) error {
	if _, err := f.Seek(block, io.SeekStart); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, sum)}, io.LimitReader(update, size-block), make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if n != size-block {
		return fmt.Errorf("it ends after %d of %d bytes: %w", n+block, size, io.ErrUnexpectedEOF)
	}
	return nil
}

func (s *Seal) check(size int64, sum hash.Hash) error {
	got := hex.EncodeToString(sum.Sum(nil))
	switch {
	case s.Size != size || s.SHA256 != got:
		return fmt.Errorf("%d bytes with sha-256 %s, sealed were %d with %s: it was damaged on its way", size, got, s.Size, s.SHA256)
	case s.Arch != runtime.GOARCH:
		return fmt.Errorf("it is for %s, and this is %s", s.Arch, runtime.GOARCH)
	}
	return nil
}

func writeBlock(f *os.File, text []byte, at int64) error {
	if _, err := f.WriteAt(text, at); err != nil {
		return err
	}
	return f.Sync()
}

// readBack compares what the disk has with the seal. The first block is not there yet.
func readBack(f *os.File, first []byte, s *Seal) error {
	if err := forget(f); err != nil {
		return fmt.Errorf("drop what is cached: %w", err)
	}
	sum := sha256.New()
	sum.Write(first)
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, io.NewSectionReader(f, block, s.Size-block), make([]byte, 1<<20)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != s.SHA256 {
		return fmt.Errorf("the disk gives back other bytes than were written: sha-256 %s, want %s", got, s.SHA256)
	}
	return nil
}
