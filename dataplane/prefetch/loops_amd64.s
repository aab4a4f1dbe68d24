#include "textflag.h"

// func elements(first unsafe.Pointer, size uintptr, indexes []uint32)
TEXT ·elements(SB), NOSPLIT, $0-40
	MOVQ  first+0(FP), DI
	MOVQ  size+8(FP), DX
	MOVQ  indexes_base+16(FP), SI
	MOVQ  indexes_len+24(FP), CX
	TESTQ CX, CX
	JZ    done

next:
	MOVL       (SI), AX
	IMULQ      DX, AX
	PREFETCHT0 (DI)(AX*1)
	ADDQ       $4, SI
	DECQ       CX
	JNZ        next

done:
	RET

// func hashed(first unsafe.Pointer, size uintptr, mask uint64, hashes []uint64)
TEXT ·hashed(SB), NOSPLIT, $0-48
	MOVQ  first+0(FP), DI
	MOVQ  size+8(FP), DX
	MOVQ  mask+16(FP), BX
	MOVQ  hashes_base+24(FP), SI
	MOVQ  hashes_len+32(FP), CX
	TESTQ CX, CX
	JZ    done

next:
	MOVQ       (SI), AX
	ANDQ       BX, AX
	IMULQ      DX, AX
	PREFETCHT0 (DI)(AX*1)
	ADDQ       $8, SI
	DECQ       CX
	JNZ        next

done:
	RET
