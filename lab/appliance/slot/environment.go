package slot

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// GRUB's environment block: a line, lines of NAME=VALUE, and # up to its fixed length
// (GRUB manual, "The GRUB environment block").
const (
	environmentSize   = 1024
	environmentHeader = "# GRUB Environment Block\n"

	// sector is what a disk writes as a whole.
	sector = 512
)

// errDamaged is what reading ends with where GRUB would find no values, too.
var errDamaged = errors.New("damaged")

func readEnvironment(r io.ReaderAt) (map[string]string, error) {
	block := make([]byte, environmentSize)
	if _, err := r.ReadAt(block, 0); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read GRUB's environment: %w: it is too short", errDamaged)
	} else if err != nil {
		return nil, fmt.Errorf("read GRUB's environment: %w", err)
	}
	text, ok := strings.CutPrefix(string(block), environmentHeader)
	if !ok {
		return nil, fmt.Errorf("read GRUB's environment: %w: it does not begin as one", errDamaged)
	}
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, fmt.Errorf("read GRUB's environment: %w: a line is %q", errDamaged, line)
		}
		values[name] = value
	}
	return values, nil
}

// writeEnvironment overwrites the block where it lies. All values are in the first
// sector; the second one is the same whatever they are.
func writeEnvironment(f *os.File, values map[string]string) error {
	block, err := formatEnvironment(values)
	if err != nil {
		return fmt.Errorf("write GRUB's environment: %w", err)
	}
	if _, err := f.WriteAt(block, 0); err != nil {
		return fmt.Errorf("write GRUB's environment: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write GRUB's environment: %w", err)
	}
	return nil
}

func formatEnvironment(values map[string]string) ([]byte, error) {
	text := environmentHeader
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if strings.ContainsAny(name+values[name], "\n\\=") {
			return nil, fmt.Errorf("%s=%s needs quoting", name, values[name])
		}
		text += name + "=" + values[name] + "\n"
	}
	if len(text) > sector {
		return nil, fmt.Errorf("%d bytes, more than a sector has", len(text))
	}
	return []byte(text + strings.Repeat("#", environmentSize-len(text))), nil
}
